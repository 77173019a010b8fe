"""The Model Context Protocol over HTTP: agents whose own model is blind call tools by which Periscope sees."""
