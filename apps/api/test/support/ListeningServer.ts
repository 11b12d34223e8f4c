/** A server of the test's own on a free port. */
import * as Effect from "effect/Effect"
import type * as Http from "node:http"
import type { Server } from "node:net"

/** Listens for as long as the scope lives, and gives the port. `end` closes the server and what is open on it. */
export const portOf = (server: Server, end: Effect.Effect<void>) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : 0))
      })
    }),
    () => end
  )

/** The same of an HTTP server, whose connections end with it. */
export const httpPortOf = (server: Http.Server) =>
  portOf(
    server,
    Effect.callback((resume) => {
      server.close(() => resume(Effect.void))
      server.closeAllConnections()
    })
  )
