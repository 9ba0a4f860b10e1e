# fish completion for mptcp-trace. The program itself computes the candidates:
# `mptcp-trace completions fish --word N -- WORDS...` prints "VALUE<tab>DESCRIPTION" lines.

function __mptcp_trace_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    # Behind `sudo`, the words include it. Only mptcp-trace is called, by its path if that was typed.
    set -l program mptcp-trace
    for at in (seq (count $words))
        if string match --quiet --regex '(^|/)mptcp-trace$' -- $words[$at]
            set words $words[$at..]
            string match --quiet "*/*" -- $words[1]; and test -x $words[1]; and set program $words[1]
            break
        end
    end
    set -l lines (command $program completions fish --word (count $words) -- $words "$current" 2>/dev/null)
    for line in $lines
        set -l value (string split --max 1 \t -- $line)[1]
        switch $value
            case '*'\x01files
                set -l prefix (string replace \x01files '' -- $value)
                set -l path (string replace -- "$prefix" '' $current)
                __fish_complete_path "$path" | string replace --regex -- '^' "$prefix"
                return
            case '*'\x01command
                set -l at (contains --index -- -- $words)
                set -l rest (string escape -- $words[(math $at + 1)..])
                complete --do-complete "$rest $current"
                return
        end
        echo $line
    end
end

complete --command mptcp-trace --no-files --keep-order --arguments '(__mptcp_trace_complete)'
