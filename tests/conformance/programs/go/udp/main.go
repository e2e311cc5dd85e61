// udp ECHO ELSEWHERE CLOSED: connected and unconnected datagrams with Go's net package.
package main

import (
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"conformance/say"
)

func main() {
	say.Limit()
	echo, elsewhere, closed := os.Args[1], os.Args[2], os.Args[3]
	buffer := make([]byte, 65536)

	connection, err := net.Dial("udp", echo)
	say.Need("dial", err)
	fmt.Printf("remote %s, local %s\n", connection.RemoteAddr(), say.Host(connection.LocalAddr()))
	for _, text := range []string{"one", "", "who"} {
		_, err = connection.Write([]byte(text))
		say.Need("write", err)
		connection.SetReadDeadline(time.Now().Add(5 * time.Second))
		size, err := connection.Read(buffer)
		fmt.Printf("connected: %q back: %q %s\n", text, buffer[:size], say.Outcome(err))
	}
	connection.Close()

	connection, err = net.Dial("udp", closed)
	say.Need("dial", err)
	connection.Write([]byte("x"))
	connection.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = connection.Read(buffer)
	fmt.Printf("closed port: %s\n", say.Outcome(err))
	connection.Close()

	packets, err := net.ListenPacket("udp", ":0")
	say.Need("listen", err)
	for _, address := range []string{echo, elsewhere, echo} {
		to, err := net.ResolveUDPAddr("udp", address)
		say.Need("resolve", err)
		_, err = packets.WriteTo([]byte("to "+address), to)
		say.Need("write", err)
		packets.SetReadDeadline(time.Now().Add(5 * time.Second))
		size, from, err := packets.ReadFrom(buffer)
		fmt.Printf("unconnected: %q from %v %s\n", buffer[:size], from, say.Outcome(err))
	}
	size := 0
	to, _ := net.ResolveUDPAddr("udp", echo)
	sent, _, err := packets.(*net.UDPConn).WriteMsgUDP(make([]byte, 1200), nil, to)
	packets.SetReadDeadline(time.Now().Add(5 * time.Second))
	size, _, flags, from, readErr := packets.(*net.UDPConn).ReadMsgUDP(buffer[:100], nil)
	fmt.Printf("messages: %d %s, then %d %#x from %v %s\n", sent, say.Outcome(err), size, flags, from, say.Outcome(readErr))

	var group sync.WaitGroup
	right := make([]bool, 50)
	for i := range right {
		group.Add(1)
		go func() {
			defer group.Done()
			own, err := net.Dial("udp", echo)
			if err != nil {
				return
			}
			defer own.Close()
			text := fmt.Sprintf("socket %d", i)
			own.Write([]byte(text))
			own.SetReadDeadline(time.Now().Add(10 * time.Second))
			mine := make([]byte, 100)
			size, _ := own.Read(mine)
			right[i] = string(mine[:size]) == text
		}()
	}
	group.Wait()
	count := 0
	for _, one := range right {
		if one {
			count++
		}
	}
	fmt.Printf("sockets that got their own datagram: %d of %d\n", count, len(right))
}
