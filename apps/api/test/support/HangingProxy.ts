/** A way to a server that can stop to carry anything: connections stand, and nothing comes through. */
import * as Effect from "effect/Effect"
import * as Net from "node:net"
import * as ListeningServer from "./ListeningServer.ts"

interface HangingProxy {
  readonly port: number
  /** Nothing more comes through, neither on what is open nor on what is opened. */
  readonly hang: Effect.Effect<void>
  /** What is opened from now on comes through; what hung is lost, and nobody is told. */
  readonly heal: Effect.Effect<void>
}

/** @param path the server's socket */
export const make = Effect.fnUntraced(function* (path: string) {
  let hangs = false
  const open = new Set<Net.Socket>()
  const keep = (socket: Net.Socket) => {
    open.add(socket)
    socket.on("error", () => socket.destroy())
    socket.on("close", () => open.delete(socket))
  }
  const server = Net.createServer((client) => {
    keep(client)
    if (hangs) return
    const target = Net.connect({ path })
    keep(target)
    client.pipe(target).pipe(client)
    client.on("close", () => target.destroy())
    target.on("close", () => client.destroy())
  })
  const port = yield* ListeningServer.portOf(
    server,
    Effect.sync(() => {
      server.close()
      for (const socket of open) socket.destroy()
    })
  )
  const proxy: HangingProxy = {
    port,
    hang: Effect.sync(() => {
      hangs = true
      for (const socket of open) socket.unpipe().pause()
    }),
    heal: Effect.sync(() => {
      hangs = false
    })
  }
  return proxy
})
