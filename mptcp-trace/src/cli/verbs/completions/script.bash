# bash completion for mptcp-trace. The program itself computes the candidates:
# `mptcp-trace completions bash --word N -- WORDS...` prints "VALUE<tab>DESCRIPTION" lines.

_mptcp_trace() {
    # By its path if that was typed, but never another program, as behind an alias.
    local program=$1 current=$2
    [[ $program == */mptcp-trace && -x $program ]] || program=mptcp-trace
    # `=` is a word of its own; the program joins it with its neighbours.
    [[ ${COMP_WORDS[COMP_CWORD]} != '=' ]] || current='='
    # The words come as typed, with their backslashes.
    current=${current//\\/}
    COMPREPLY=()

    local value about
    local -a values=() abouts=()
    while IFS=$'\t' read -r value about; do
        case $value in
        *$'\001files')
            compopt -o filenames 2> /dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$2")
            return
            ;;
        *$'\001command')
            _mptcp_trace_command
            return
            ;;
        esac
        values+=("$value")
        abouts+=("$about")
    done < <("$program" completions bash --word "$COMP_CWORD" -- \
        "${COMP_WORDS[@]:0:COMP_CWORD}" "$current" 2> /dev/null)

    # bash has no descriptions. A list that it only shows can contain them: it inserts no more than
    # the common prefix of two different values. Flags are many, and shown in columns instead.
    local i shows_a_list=false
    case $COMP_TYPE in 33 | 63 | 64) shows_a_list=true ;; esac
    for i in "${!values[@]}"; do
        printf -v value %q "${values[i]}"
        value=${value//\\,/,}
        if $shows_a_list && ((${#values[@]} > 1)) && [[ ${values[i]} != -* && ${abouts[i]} ]]; then
            value="$value  (${abouts[i]})"
            value=${value:0:${COLUMNS:-80}}
        fi
        COMPREPLY+=("$value")
    done
}

# A command line after `--`.
_mptcp_trace_command() {
    local at=0
    while [[ ${COMP_WORDS[at]} != -- ]]; do ((at += 1)); done
    if declare -F _command_offset > /dev/null; then
        _command_offset $((at + 1))
    elif ((COMP_CWORD == at + 1)); then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
    else
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}

complete -F _mptcp_trace mptcp-trace
