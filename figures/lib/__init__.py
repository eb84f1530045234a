"""What figures share: style, captions, curves."""
