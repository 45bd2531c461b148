"""Checks if images can be rendered on this computer."""


def has_gl() -> bool:
    """Asked of MuJoCo, not of a module under test."""
    try:
        from mujoco.egl import GLContext

        GLContext(8, 8).free()
    except Exception:
        return False
    return True


GL = has_gl()
