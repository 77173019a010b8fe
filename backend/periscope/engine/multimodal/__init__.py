"""Native vision: images to tokens, embeddings and positions, for the one continuous batch."""
