"""Types command lines into a real shell on a terminal, presses Tab, and checks what appears.

usage: typist.py SHELL SCRIPT FOLDER < CASES

SHELL is bash, zsh or fish; SCRIPT its completion script; FOLDER holds the program and is the first
in PATH. A case is a line: what to type, a tab, what must appear, separated by tabs. The working
directory has the files that are to be completed. Prints each case that fails with all that the
terminal showed; exits with 1 if there is one.
"""

import os
import pty
import re
import select
import signal
import sys
import tempfile
import time

PATIENCE_S = 15.0
PROMPT = "typist> "
# Sequences by which a shell moves the cursor and colours text.
CONTROL = re.compile(r"\x1b\[[0-9;?>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>78]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|[\r\x07\x08]")

SETUP = {
    # A short list is shown at the first Tab, and a long one without a question.
    "bash": """
        bind 'set show-all-if-ambiguous on'; bind 'set completion-query-items -1'
        bind 'set page-completions off'; bind 'set enable-bracketed-paste off'
        bind 'set bell-style none'
        source {script}
        PS1='{prompt}'
    """,
    "zsh": """
        autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste prompt_sp list_beep
        LISTMAX=100000; setopt nolistambiguous
        source {script}
        PROMPT='{prompt}'; RPROMPT=
    """,
    "fish": """
        function fish_prompt; echo -n '{prompt}'; end
        function fish_right_prompt; end; function fish_greeting; end
        set -g fish_autosuggestion_enabled 0
        source {script}
    """,
}

START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "--no-rcs", "--no-globalrcs", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}


class Terminal:
    """A shell on a terminal wide enough for every line."""

    def __init__(self, shell, folder, home):
        environment = {
            "HOME": home,
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "LINES": "500",
            "COLUMNS": "200",
            "PATH": f"{folder}:{os.environ['PATH']}",
            "XDG_CONFIG_HOME": home,
            "XDG_DATA_HOME": home,
        }
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.execvpe(START[shell][0], START[shell], environment)
        # 500 lines of 200 columns.
        import fcntl, struct, termios

        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 500, 200, 0, 0))
        self.shown = ""

    def type(self, text):
        os.write(self.file, text.encode())

    def read(self, seconds):
        ready, _, _ = select.select([self.file], [], [], seconds)
        if not ready:
            return False
        try:
            self.shown += os.read(self.file, 65536).decode(errors="replace")
        except OSError:
            return False
        return True

    def text(self):
        return CONTROL.sub("", self.shown)

    def wait(self, is_shown):
        """Reads until the text is as wanted; false if that takes too long."""
        end = time.monotonic() + PATIENCE_S
        while not is_shown(self.text()):
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.read(min(left, 0.5))
        return True

    def settle(self):
        while self.read(0.15):
            pass


def check(terminal, line, expected):
    """Types a line and Tab; returns what the terminal showed if a word is missing."""
    # A fresh prompt, whatever the line before left: \x15 (Ctrl-U) empties it. The command prints what
    # its own echo does not contain.
    terminal.shown = ""
    terminal.type("\x15printf 'fr%s\\n' esh\r")
    if not terminal.wait(lambda text: PROMPT in text[text.find("fresh") :] and "fresh" in text):
        return terminal.text()
    terminal.shown = ""
    terminal.type(line)
    # All of it is echoed before Tab, so that the rest was completed.
    squeezed = line.replace(" ", "")
    echoed = terminal.wait(lambda text: squeezed in re.sub(r"\s", "", text))
    terminal.type("\t")
    if terminal.wait(lambda text: all(word in text for word in expected)) and echoed:
        failure = None
    else:
        failure = terminal.text()
    return failure


def main():
    shell, script, folder = sys.argv[1:4]
    cases = [line.rstrip("\n").split("\t") for line in sys.stdin if line.strip()]
    with tempfile.TemporaryDirectory() as home:
        terminal = Terminal(shell, folder, home)
        setup = os.path.join(home, "setup")
        with open(setup, "w") as file:
            file.write(SETUP[shell].format(script=f"'{script}'", prompt=PROMPT))
        terminal.settle()
        terminal.type(f"source {setup}\r")
        failed = [] if terminal.wait(lambda text: PROMPT in text) else [("", [], terminal.text())]
        for line, *expected in cases if not failed else []:
            failure = check(terminal, line, expected)
            if failure is not None:
                failed.append((line, expected, failure))
            elif os.environ.get("TYPIST_SHOWS"):
                print(f"--- {line}<Tab>\n{terminal.text()}")
        os.kill(terminal.pid, signal.SIGKILL)
        os.waitpid(terminal.pid, 0)
    for line, expected, shown in failed:
        print(f"{shell}: {line!r} and Tab: not all of {expected} in:\n{shown}")
    return 1 if failed or not cases else 0


sys.exit(main())
