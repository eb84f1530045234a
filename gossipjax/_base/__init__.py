"""What every other room stands on. Private: nothing here is part of the public interface."""
