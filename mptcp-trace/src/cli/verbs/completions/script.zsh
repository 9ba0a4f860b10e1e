#compdef mptcp-trace
# zsh completion for mptcp-trace. The program itself computes the candidates:
# `mptcp-trace completions zsh --word N -- WORDS...` prints "VALUE<tab>DESCRIPTION" lines.

_mptcp_trace() {
    # By its path if that was typed, but never another program, as behind an alias.
    local program=${(Q)words[1]}
    [[ $program == */mptcp-trace && -x $program ]] || program=mptcp-trace

    local line value
    local -a lines candidates
    lines=("${(@f)$(command $program completions zsh --word $(( CURRENT - 1 )) -- \
        "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)}")
    for line in $lines; do
        value=${line%%$'\t'*}
        case $value in
            (*$'\001files')
                value=${value%$'\001files'}
                [[ -z $value ]] || compset -P "${(b)value}"
                _files
                return ;;
            (*$'\001command')
                local at=${words[(i)--]}
                shift $at words
                (( CURRENT -= at ))
                _normal
                return ;;
        esac
        value=${${value//\\/\\\\}//:/\\:}
        candidates+=("$value${${line#*$'\t'}:+:${line#*$'\t'}}")
    done
    # Names are found in either case.
    _describe -t values value candidates -M 'm:{a-zA-Z}={A-Za-z}'
}

# Either a file in $fpath, loaded as the function, or read by `source`.
if [[ $funcstack[1] == _mptcp-trace ]]; then
    _mptcp_trace "$@"
else
    compdef _mptcp_trace mptcp-trace
fi
