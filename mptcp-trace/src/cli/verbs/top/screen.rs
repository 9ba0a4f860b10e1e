//! The terminal while `top` draws on it; always restored, even after a panic.
//!
//! Messages of other code on stderr would corrupt the screen: they are kept, and printed once the
//! terminal is restored.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Stdout, Write as _},
    panic, process,
    sync::{Mutex, Once, PoisonError},
    thread,
};

use anyhow::Context as _;
use ratatui::{
    Terminal,
    backend::{Backend, ClearType, CrosstermBackend, WindowSize},
    buffer::Cell,
    crossterm::{
        cursor::Show,
        execute,
        style::Print,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Position, Size},
};
use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, memfd_create},
    process::{Signal, kill_current_process_group},
    stdio::dup2_stderr,
};

use signal_hook::{iterator::Signals, low_level::emulate_default_handler};

use crate::{
    cli::colour,
    host::system::is_ignored,
    sink::escape,
    top::{
        app::App,
        board::Snapshot,
        draw::{Around, draw},
    },
};

/// Most bytes of stderr that are kept and printed at the end.
const SAID_MAX: u64 = 64 * 1024;

/// Largest area that is drawn on, columns and lines: each cell takes memory, and a terminal may
/// claim 65,535 of both.
const SIZE_MAX: Size = Size {
    width: 1000,
    height: 500,
};

/// Report presses of buttons and the wheel, in the encoding without a limit of columns (xterm's
/// modes 1000 and 1006). The library's own command would also report every movement.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// A terminal of at most [`SIZE_MAX`].
struct Bounded(CrosstermBackend<Stdout>);

impl Bounded {
    fn new() -> Self {
        Self(CrosstermBackend::new(io::stdout()))
    }
}

fn bounded(size: Size) -> Size {
    Size {
        width: size.width.min(SIZE_MAX.width),
        height: size.height.min(SIZE_MAX.height),
    }
}

impl Backend for Bounded {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        self.0.draw(content)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.0.hide_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.0.show_cursor()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        self.0.get_cursor_position()
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.0.set_cursor_position(position)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0.clear()
    }

    fn clear_region(&mut self, clear_type: ClearType) -> io::Result<()> {
        self.0.clear_region(clear_type)
    }

    fn size(&self) -> io::Result<Size> {
        self.0.size().map(bounded)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        let mut size = self.0.window_size()?;
        size.columns_rows = bounded(size.columns_rows);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Backend::flush(&mut self.0)
    }
}

/// State needed to restore the terminal.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

struct Taken {
    /// The original stderr.
    stderr: OwnedFd,
    /// Where stderr goes meanwhile.
    said: File,
    /// The terminal reports the mouse.
    has_mouse: bool,
}

/// The terminal, until it is restored.
pub(super) struct Screen {
    terminal: Terminal<Bounded>,
    has_colour: bool,
    has_mouse: bool,
    falls_over: bool,
}

impl Screen {
    /// Sets up the terminal; panics after the first frame if it `falls_over`, for tests.
    ///
    /// # Errors
    ///
    /// Fails if the terminal cannot be set up.
    pub(super) fn open(falls_over: bool) -> anyhow::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = panic::take_hook();
            panic::set_hook(Box::new(move |why| {
                give_back();
                usual(why);
            }));
        });
        restore_on_deadly_signals()?;
        take()?;
        let terminal = Terminal::new(Bounded::new());
        let terminal = terminal.inspect_err(|_why| give_back());
        Ok(Self {
            terminal: terminal.context("cannot draw on the terminal")?,
            falls_over,
            has_mouse: false,
            has_colour: colour::on_stdout(),
        })
    }

    /// Draws a frame.
    ///
    /// # Errors
    ///
    /// Fails if the terminal was closed.
    pub(super) fn draw(
        &mut self,
        app: &mut App,
        snapshot: &Snapshot,
        mut around: Around,
    ) -> anyhow::Result<()> {
        around.has_colour = self.has_colour;
        if has_said_something() {
            let message = "stderr has new messages, shown on exit";
            around.message.get_or_insert_with(|| message.to_owned());
        }
        self.terminal
            .draw(|frame| draw(frame, app, snapshot, &around, escape))
            .context("cannot draw on the terminal")?;
        assert!(!self.falls_over, "panicked, as --panic requests");
        Ok(())
    }

    /// Suspends the process, as Ctrl-Z does, and sets up the terminal again when it resumes.
    ///
    /// # Errors
    ///
    /// Fails if the terminal cannot be set up again.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        give_back();
        kill_current_process_group(Signal::TSTP).context("cannot stop")?;
        take()?;
        // A new terminal redraws everything. Clearing the old one would query the cursor position,
        // and the thread that reads keys would receive the answer.
        let terminal = Terminal::new(Bounded::new());
        self.terminal = terminal.context("cannot draw on the terminal")?;
        self.use_mouse(self.has_mouse)
    }

    /// Lets the terminal report clicks and the wheel, or stops that.
    ///
    /// # Errors
    ///
    /// Fails if the terminal was closed.
    pub(super) fn use_mouse(&mut self, is_on: bool) -> anyhow::Result<()> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let was_on = taken.as_ref().is_some_and(|it| it.has_mouse);
        if let Some(taken) = &mut *taken {
            taken.has_mouse = is_on;
        }
        drop(taken);
        self.has_mouse = is_on;
        let sequence = match (was_on, is_on) {
            (false, true) => MOUSE_ON,
            (true, false) => MOUSE_OFF,
            (false, false) | (true, true) => return Ok(()),
        };
        execute!(io::stdout(), Print(sequence)).context("cannot set up the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Signals that end a process if nothing handles them, except those that the verb handles in order,
/// and those of faults of the program itself.
const DEADLY: [i32; 11] = [
    libc::SIGQUIT,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGALRM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSYS,
];

/// On such a signal, restores the terminal and ends as the signal would. Ignored signals stay so.
fn restore_on_deadly_signals() -> anyhow::Result<()> {
    let deadly = DEADLY
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    let deadly = deadly.filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(deadly).context("cannot take signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            give_back();
            // Returns for signals that the library does not know.
            let _unknown = emulate_default_handler(signal);
            process::exit(128 + signal);
        }
    });
    Ok(())
}

fn take() -> anyhow::Result<()> {
    let stderr = rustix::io::dup(rustix::stdio::stderr()).context("stderr is closed")?;
    let said = memfd_create("stderr", MemfdFlags::CLOEXEC).context("cannot hold back stderr")?;
    enable_raw_mode().context(
        "cannot set up the terminal; is this a terminal, and are we its foreground \
                  process?",
    )?;
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if dup2_stderr(&said).is_ok() {
        *taken = Some(Taken {
            stderr,
            said: said.into(),
            has_mouse: false,
        });
    }
    drop(taken);
    execute!(io::stdout(), EnterAlternateScreen)
        .inspect_err(|_why| give_back())
        .context("cannot set up the terminal")
}

/// Restores the terminal; calling it twice is harmless. Errors are ignored: the terminal was
/// closed.
pub(super) fn give_back() {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Taken {
        stderr,
        mut said,
        has_mouse,
    }) = taken
    else {
        return;
    };
    if has_mouse {
        let _gone = execute!(io::stdout(), Print(MOUSE_OFF));
    }
    let _gone = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _gone = disable_raw_mode();
    let _gone = dup2_stderr(&stderr);
    let mut text = Vec::new();
    let kept = said
        .seek(SeekFrom::Start(0))
        .and_then(|_start| said.take(SAID_MAX).read_to_end(&mut text));
    if kept.is_ok() {
        let _gone = io::stderr().write_all(&text);
    }
}

fn has_said_something() -> bool {
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    taken
        .as_ref()
        .and_then(|taken| taken.said.metadata().ok())
        .is_some_and(|kept| kept.len() > 0)
}
