"""Vision-language models: pictures and instructions in, descriptions out."""
