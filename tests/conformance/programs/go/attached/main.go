// attached SILENT ECHO: runs, with calls under way in several threads, until it reads a line.
//
// Says "ready PID" when a connect to the address that hears nothing has begun. What all came to is told at the end, and
// it is the same however often the process was stopped meanwhile.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"conformance/say"
)

var over atomic.Bool

type tally struct {
	count      int
	unexpected string
}

func (t *tally) add(got, expected string) {
	t.count++
	if got != expected {
		t.unexpected = got
	}
}

func (t *tally) tell(what string) {
	made, seen := "made", "as expected"
	if t.count == 0 {
		made = "none"
	}
	if t.unexpected != "" {
		seen = t.unexpected
	}
	fmt.Printf("%s: %s, %s\n", what, made, seen)
}

func dialSilence(address string, into *tally, begun func()) {
	for !over.Load() {
		begun()
		_, err := net.Dial("tcp", address)
		into.add(say.Outcome(err), "ETIMEDOUT")
	}
}

func roundTrip(address string, into *tally) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		into.add(say.Outcome(err), "OK")
		return
	}
	into.add(connection.RemoteAddr().String(), address)
	fmt.Fprintln(connection, "ping")
	line, err := bufio.NewReader(connection).ReadString('\n')
	into.add(line+say.Outcome(err), "ping\nOK")
	connection.(*net.TCPConn).SetLinger(0) // nothing stays in TIME_WAIT: ports would run out
	connection.Close()
	name, err := os.ReadFile("/etc/hostname")
	into.add(string(name)+say.Outcome(err), "conformance-0\nOK")
}

func dialEcho(address string, into *tally) {
	for !over.Load() {
		roundTrip(address, into)
	}
}

func main() {
	say.Limit()
	var silence, echo tally
	var workers sync.WaitGroup
	begun := make(chan struct{})
	once := sync.OnceFunc(func() { close(begun) })
	workers.Go(func() { dialSilence(os.Args[1], &silence, once) })
	workers.Go(func() { dialEcho(os.Args[2], &echo) })
	<-begun
	fmt.Println("ready", os.Getpid())
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	say.Need("read", err)
	over.Store(true)
	workers.Wait()
	silence.tell("connects to silence")
	echo.tell("connects and reads")
	os.Exit(7)
}
