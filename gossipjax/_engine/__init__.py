"""The loop, and the host's work around it. Private: reach it through gossipjax.simulate and gossipjax.run."""
