"""Text readers: OCR engines that read the exact text in an image."""
