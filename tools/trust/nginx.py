"""A local nginx that can be killed."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

CONF = """
daemon off; worker_processes 2; pid {place}/nginx.pid; error_log {place}/error.log; user root;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;
  uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;
  split_clients "$msec$connection$connection_requests$uri" $fails {{ {fails} 1; * 0; }}
  server {{
    listen 127.0.0.1:{port}; root {place}/data; sendfile off; limit_rate {rate};
    if ($fails) {{ return 500; }}
    {more}
  }}
}}
"""


class Nginx:
    """Serves place/data; stop() kills all of it."""

    def __init__(self, place: Path, *, fails: str = "0.01%", rate: str = "8m", more: str = ""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.conf = place / "nginx.conf"
        self.conf.write_text(CONF.format(place=place, port=self.port, fails=fails, rate=rate, more=more))
        self.start()

    def start(self) -> None:
        command = ["nginx", "-c", str(self.conf), "-e", str(self.conf.with_name("error.log"))]
        self.process = subprocess.Popen(command, start_new_session=True)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(self.conf.with_name("error.log").read_text())

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
