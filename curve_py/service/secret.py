"""The cluster's secret: 32 random bytes, kept as 64 hexadecimal digits in a file of mode 0600.

Whoever holds it may do everything (DESIGN.md section 9). May block (disk).
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from curve_py.errors import ConfigError

SECRET_BYTES = 32


def create_secret(path: Path) -> bytes:
    """A new secret, durable at `path`. Raises FileExistsError: an old one is never overwritten."""
    secret = secrets.token_bytes(SECRET_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return secret


def load_secret(path: Path) -> bytes:
    """Raises ConfigError, which says what is wrong with the file."""
    try:
        with open(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096).strip()
    except FileNotFoundError:
        raise ConfigError(f"There is no secret file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The secret file {path} cannot be read: {error}.") from None
    if mode & 0o077:
        raise ConfigError(
            f"The secret file {path} can be read by others (mode {mode:04o}).",
            f"Run: chmod 600 {path}",
        )
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ConfigError(f"The secret file {path} does not hold {SECRET_BYTES * 2} hex digits.")
    return secret
