// Calls a head-end over TLS with ugorji's MsgpackSpecRpc: PORT AUTHORITY CERTIFICATE KEY. Prints JSON.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"

	"github.com/ugorji/go/codec"

	"net/rpc"
)

func main() {
	authority, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	own, err := tls.LoadX509KeyPair(os.Args[3], os.Args[4])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := tls.Dial("tcp", "localhost:"+os.Args[1], &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}})
	if err != nil {
		log.Fatal(err)
	}
	handle := &codec.MsgpackHandle{}
	handle.RawToString = true
	handle.WriteExt = true
	handle.MapType = reflect.TypeOf(map[string]interface{}(nil))
	client := rpc.NewClientWithCodec(codec.MsgpackSpecRpc.ClientCodec(connection, handle))
	found := map[string]interface{}{}
	call := func(name, method string, params map[string]interface{}) {
		var result interface{}
		if err := client.Call(method, codec.MsgpackSpecRpcMultiArgs{params}, &result); err != nil {
			found["failure"] = err.Error()
			return
		}
		found[name] = result
	}
	item := []string{"1.0.1.8.0.255"}
	call("ping", "rpc.ping", map[string]interface{}{})
	call("devices", "device.list", map[string]interface{}{"limit": 10})
	call("last", "read.last", map[string]interface{}{"points": []string{"virtual-00001"}, "items": item})
	call("none", "read.last", map[string]interface{}{"points": []string{"nobody"}, "items": item})
	text, err := json.Marshal(found)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(text))
}
