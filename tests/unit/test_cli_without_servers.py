"""What operators' commands say when a server is away: one sentence, soon, and nothing of a library's own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Kafka is given 5 s to answer; on a busy machine six processes start slowly.
SECONDS = 30

COMMANDS = {
    "lag": "Kafka",
    "dlq list": "Kafka",
    "dlq replay timelines": "Kafka",
    "dlq drop timelines --yes": "Kafka",
    "offsets show timelines": "Kafka",
    "search status": "database",
}


def nobody_listens() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_commands_say_in_one_sentence_which_server_is_away(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FANLINE_")}
    environment |= {"FANLINE_POSTGRES_PORT": nobody_listens(), "FANLINE_KAFKA_PORT": nobody_listens()}
    environment["FANLINE_STATE_DIR"] = str(tmp_path)
    # Side by side, as they spend their time waiting.
    processes = {
        command: subprocess.Popen(
            [sys.executable, "-m", "fanline.cli", *command.split()],
            env=environment, cwd=ROOT, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for command in COMMANDS
    }  # fmt: skip
    try:
        for command, process in processes.items():
            printed, said = process.communicate(timeout=SECONDS)
            assert (process.returncode, printed) == (1, ""), command
            [sentence] = said.splitlines()
            assert COMMANDS[command] in sentence
            assert sentence.endswith(".")
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
