// What the library as a whole exports.

#include "common.h"

// The same number as INTERFACE in ../native_library.py.
SD_EXPORT int32_t sparsedrive_interface() { return 2; }

// setuptools has it exported on some platforms. The library is loaded by its path, never imported.
SD_EXPORT void* PyInit__library() { return nullptr; }
