"""Systems that work in rounds: with a clock, a barrier or an all-reduce."""
