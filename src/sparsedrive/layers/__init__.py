"""Building blocks of the decoders."""
