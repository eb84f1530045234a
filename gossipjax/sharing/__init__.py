"""What nodes say: builders of :class:`gossipjax.types.Sharing`."""

from gossipjax.sharing.full import full as full
