"""A systemd service that is started by its socket, with the bundle beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidemill.bundle.exporters._launch import DRAIN_S, PORT, Launch, copy_bundle, launch_of
from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.runtime import Bundle


@dataclass(frozen=True)
class SystemdUnits:
    """Writes a ``.service``, a ``.socket``, and a script that installs both."""

    description: str = "systemd units with socket activation"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write the folder."""
        launch = launch_of(bundle)
        unit = f"tidemill-{launch.name}"
        with atomic_folder(out) as folder:
            copy_bundle(bundle, folder / "bundle")
            (folder / f"{unit}.socket").write_text(socket_unit(launch), encoding="utf-8")
            (folder / f"{unit}.service").write_text(service_unit(launch), encoding="utf-8")
            (folder / "install.sh").write_text(install_script(launch), encoding="utf-8")
            (folder / "install.sh").chmod(0o755)
        return out


def socket_unit(launch: Launch) -> str:
    """The socket: it is there before the service, and while the service is started again; nobody is turned away."""
    return (
        "[Unit]\n"
        f"Description=Socket of the Tidemill model {launch.name}\n\n"
        "[Socket]\n"
        f"ListenStream=127.0.0.1:{PORT}\n"
        "Backlog=2048\n"
        "NoDelay=true\n\n"
        "[Install]\n"
        "WantedBy=sockets.target\n"
    )


def service_unit(launch: Launch) -> str:
    """The service: no root, no home, nothing but reading its bundle."""
    command = f"/usr/bin/env tidemill serve %S/tidemill-{launch.name}/bundle --name {launch.name}"
    return (
        "[Unit]\n"
        f"Description=Tidemill model {launch.name}, bundle {launch.digest}\n"
        f"Requires=tidemill-{launch.name}.socket\n"
        f"After=network.target tidemill-{launch.name}.socket\n"
        "StartLimitIntervalSec=0\n\n"
        "[Service]\n"
        "Type=exec\n"
        f"ExecStart={command}\n"
        "Restart=always\n"
        "RestartSec=1\n"
        "KillMode=mixed\n"
        f"TimeoutStopSec={DRAIN_S}\n"
        f"MemoryMax={launch.memory_mib}M\n"
        "LimitNOFILE=65536\n"
        "DynamicUser=yes\n"
        f"StateDirectory=tidemill-{launch.name}\n"
        "NoNewPrivileges=yes\n"
        "ProtectSystem=strict\n"
        "ProtectHome=yes\n"
        "PrivateTmp=yes\n"
        "PrivateDevices=yes\n"
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n"
        "CapabilityBoundingSet=\n\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def install_script(launch: Launch) -> str:
    """What an administrator runs once."""
    unit = f"tidemill-{launch.name}"
    return (
        "#!/bin/sh\n"
        "# Run as root, where `tidemill` is on the path of system services.\n"
        "set -eu\n"
        'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)\n'
        f"place=/var/lib/{unit}\n"
        'mkdir -p "$place"\n'
        'rm -rf "$place/bundle.new"\n'
        'cp -R "$here/bundle" "$place/bundle.new"\n'
        'rm -rf "$place/bundle"\n'
        'mv "$place/bundle.new" "$place/bundle"\n'
        f'cp "$here/{unit}.socket" "$here/{unit}.service" /etc/systemd/system/\n'
        "systemctl daemon-reload\n"
        f"systemctl enable --now {unit}.socket\n"
        f"systemctl restart {unit}.service\n"
    )


EXPORTER = SystemdUnits()
