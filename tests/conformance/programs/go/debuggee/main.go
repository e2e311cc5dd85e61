// debuggee NAME ADDRESS: what a debugger steps through. Each function makes calls that somebody may intercept.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"conformance/say"
)

func resolved(name string) string {
	addresses, err := net.LookupHost(name)
	if err != nil {
		return say.Outcome(err)
	}
	return addresses[0]
}

func nameServer() string {
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return say.Outcome(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

func reached(address string) (string, string) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return say.Outcome(err), ""
	}
	defer connection.Close()
	_, err = io.WriteString(connection, "through Go\n")
	say.Need("write", err)
	line, err := bufio.NewReader(connection).ReadString('\n')
	say.Need("read", err)
	return connection.RemoteAddr().String(), strings.TrimSpace(line)
}

func main() {
	say.Limit()
	name := resolved(os.Args[1])
	fmt.Println("resolved:", name)
	server := nameServer()
	fmt.Println("resolver:", server)
	peer, echo := reached(os.Args[2])
	fmt.Println("peer:", peer)
	fmt.Println("echo:", echo)
	host, err := os.Hostname()
	fmt.Println("host name:", host, say.Outcome(err))
	os.Exit(7)
}
