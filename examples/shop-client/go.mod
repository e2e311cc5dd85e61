module example.test/shop-client

go 1.21
