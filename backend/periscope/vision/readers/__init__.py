"""Text readers: OCR engines that read, to the letter, the text that stands in a picture."""
