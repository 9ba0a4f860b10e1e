// A client in Go, for `mptcp-lab verdicts`: it queries MPTCP the way Go's standard library does.
//
// It gets the address and port of a listener as arguments, sends a message, receives one, and
// prints one line with its port and the answer to its query. It exits when its stdin is closed.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
)

const messageBytes = 20

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab-go:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 3 {
		return fmt.Errorf("usage: lab-go ADDRESS PORT")
	}
	dialer := net.Dialer{}
	dialer.SetMultipathTCP(true)
	address := net.JoinHostPort(os.Args[1], os.Args[2])
	connection, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write(bytes.Repeat([]byte("a"), messageBytes)); err != nil {
		return err
	}
	if _, err := io.ReadFull(connection, make([]byte, messageBytes)); err != nil {
		return err
	}
	isMultipath, err := connection.(*net.TCPConn).MultipathTCP()
	if err != nil {
		return err
	}
	fmt.Println(connection.LocalAddr().(*net.TCPAddr).Port, isMultipath)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
