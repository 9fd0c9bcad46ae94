"""Features for cameras that failed, in three levels: what was seen before and beside it, what such pictures look like, where we drive."""
