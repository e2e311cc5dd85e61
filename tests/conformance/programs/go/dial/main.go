// dial ADDRESS...: what becomes of dialling each, with Go's non-blocking connect; then dials that are given up.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"conformance/say"
)

func main() {
	say.Limit()
	for _, address := range os.Args[2:] {
		connection, err := net.Dial("tcp", address)
		fmt.Printf("%s: %s\n", address, say.Outcome(err))
		if err != nil {
			continue
		}
		fmt.Printf("%s: remote %s, local %s\n", address, connection.RemoteAddr(), say.Host(connection.LocalAddr()))
		_, err = io.WriteString(connection, "through Go\n")
		line, readErr := bufio.NewReader(connection).ReadString('\n')
		fmt.Printf("%s: %s %s %q\n", address, say.Outcome(err), say.Outcome(readErr), line)
		say.Need("deadline", connection.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = connection.Read(make([]byte, 10))
		fmt.Printf("%s: read with a deadline: %s\n", address, say.Outcome(err))
		fmt.Printf("%s: close: %s\n", address, say.Outcome(connection.Close()))
	}
	silent := os.Args[1]
	_, err := net.DialTimeout("tcp", silent, 100*time.Millisecond)
	fmt.Printf("%s, given up after 0.1 s: %s\n", silent, say.Outcome(err))
	_, err = net.DialTimeout("tcp", silent, 600*time.Millisecond)
	fmt.Printf("%s, given up after 0.6 s: %s\n", silent, say.Outcome(err))
	context, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = new(net.Dialer).DialContext(context, "tcp", silent)
	fmt.Printf("%s, canceled: %s\n", silent, say.Outcome(err))
	_, err = net.Dial("tcp", silent)
	fmt.Printf("%s, awaited: %s\n", silent, say.Outcome(err))
}
