// serve VISITOR HOST:PORT...: an HTTP server on each port in turn, visited there by a service of the pod.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"conformance/say"
)

func main() {
	visitor, err := net.Dial("tcp", os.Args[1])
	say.Need("dial", err)
	answers := bufio.NewReader(visitor)
	for _, address := range os.Args[2:] {
		host, port, err := net.SplitHostPort(address)
		say.Need("address", err)
		listener, err := net.Listen("tcp", ":"+port)
		say.Need("listen", err)
		fmt.Println("listening:", listener.Addr())
		seen := make(chan string, 2)
		server := http.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			seen <- request.RemoteAddr
			seen <- fmt.Sprint(request.Context().Value(http.LocalAddrContextKey))
			fmt.Fprint(response, "welcome")
		})}
		go server.Serve(listener)
		fmt.Fprintf(visitor, "tcp %s %s GET / HTTP/1.0||\n", host, port)
		fields := strings.Fields(line(answers))
		from := net.JoinHostPort(fields[1], fields[2])
		fmt.Println("visitor:", fields[1])
		fmt.Println("client is the visitor:", <-seen == from)
		fmt.Println("local:", <-seen)
		heard := strings.Split(line(answers), "|")
		fmt.Println("heard:", heard[0], heard[len(heard)-1])
		server.Close()
	}
}

func line(answers *bufio.Reader) string {
	text, err := answers.ReadString('\n')
	say.Need("reading", err)
	return strings.TrimSpace(text)
}
