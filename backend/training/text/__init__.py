"""The text model: chats about described pictures, and a small model that answers them."""
