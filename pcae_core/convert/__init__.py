"""Convert Vision Transformers of other projects to PCAE's form, and PCAE's encoders to theirs."""
