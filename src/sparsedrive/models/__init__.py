"""Networks: image encoder, instance decoders, motion planner, and SparseDrive itself."""
