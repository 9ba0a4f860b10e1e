//! Arguments of `completions`.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

/// Options of `completions`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// Shell that runs the script
    pub shell: Shell,
    /// Print the candidates for word N of the command line after `--`, as the scripts need them
    #[arg(long, value_name = "N", hide = true)]
    pub word: Option<usize>,
    /// Words of the command line up to the cursor
    #[arg(last = true, hide = true, requires = "word")]
    pub words: Vec<OsString>,
}

/// Shells with completions.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shell {
    /// Bash, with or without the package bash-completion
    Bash,
    /// Z shell; compinit must have run
    Zsh,
    /// Fish
    Fish,
}

const EXAMPLES: &str = "\
The packages install these scripts. Scripts of another version keep working: they pass the command
line to the program, which computes the candidates.

Examples:
  In this shell only:
      source <(mptcp-trace completions bash)
      source <(mptcp-trace completions zsh)
      mptcp-trace completions fish | source
  For yourself:
      mkdir -p ~/.local/share/bash-completion/completions ~/.config/fish/completions
      mptcp-trace completions bash > ~/.local/share/bash-completion/completions/mptcp-trace
      mptcp-trace completions fish > ~/.config/fish/completions/mptcp-trace.fish
      echo 'source <(mptcp-trace completions zsh)' >> ~/.zshrc        # after compinit
  For all users:
      mptcp-trace completions bash | sudo tee /etc/bash_completion.d/mptcp-trace > /dev/null
      mptcp-trace completions zsh | sudo tee /usr/local/share/zsh/site-functions/_mptcp-trace > /dev/null
      mptcp-trace completions fish | sudo tee /etc/fish/completions/mptcp-trace.fish > /dev/null";
