"""Count the programs that XLA compiles."""

import contextlib

from jax import monitoring

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compiled():
    """Yield the names of the programs compiled inside the with-block, such as ``jit(_advance_call)``, in order."""
    names = []

    def listen(event, duration, fun_name="", **_):
        del duration
        if event == _EVENT:
            names.append(fun_name)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        monitoring.unregister_event_duration_listener(listen)
