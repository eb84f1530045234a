"""Code that figures share: style, captions and curves."""
