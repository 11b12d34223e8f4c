/** A port that nobody listens on at this moment. */
import { createServer } from "node:net"

export const find = () =>
  new Promise<number>((resolve, reject) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() =>
        address === null || typeof address === "string"
          ? reject(new Error("No free port"))
          : resolve(address.port)
      )
    })
  })
