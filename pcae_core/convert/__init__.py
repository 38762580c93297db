"""Other people's Vision Transformers into PCAE's form, and PCAE's encoders into theirs."""
