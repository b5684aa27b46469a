"""Other packages' loading functions, replaced by ones that also take `.bs` files.

Nothing is imported for it: a package that has not been imported yet is changed when it is.
"""


def install_hook() -> None:
    """Let transformers, diffusers and `safetensors.torch.load_file` open `.bs` files.

    `AutoModel*.from_pretrained` and diffusers' pipelines then take a folder or Hub repository that holds `.bs` files in place of
    safetensors; every result is bit-equal to the original's. A folder that holds a complete safetensors model is loaded from that.

    Neither torch nor any of these packages is imported by this: those that are not there yet are changed when they are imported. A second
    call does nothing. The hook is this process's own: a program that starts others calls this in each.

    Raises FrameworkError, and changes nothing, if an installed package is of a version that this release does not know. The message
    tells how to load without the hook.
    """
    from .registry import install

    install()


def uninstall_hook() -> None:
    """Undo `install_hook`: every function is the original again. Models that have been loaded stay as they are."""
    from .registry import uninstall

    uninstall()
