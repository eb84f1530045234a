"""Utilities that all other packages use. Private: nothing here is part of the public interface."""
