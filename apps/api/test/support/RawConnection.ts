/** One TCP connection to the gateway, written and read by hand. */
import * as Effect from "effect/Effect"
import * as Net from "node:net"

interface RawConnection {
  readonly write: (text: string) => Effect.Effect<void>
  /** Everything that has come, once it matches; fails as a defect when the connection ends before. */
  readonly shows: (pattern: string | RegExp) => Effect.Effect<string>
  /** Everything that came, once the server has closed. */
  readonly ended: Effect.Effect<string>
}

/** Connects; the connection is destroyed with the scope. */
export const make = Effect.fnUntraced(function* (port: number) {
  const socket = yield* Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const connecting = Net.connect({ host: "127.0.0.1", port }, () => resume(Effect.succeed(connecting)))
      connecting.once("error", (error) => resume(Effect.die(error)))
    }),
    (connected) => Effect.sync(() => connected.destroy())
  )
  let text = ""
  let closed = false
  const listeners = new Set<() => void>()
  const changed = () => {
    for (const listener of listeners) listener()
  }
  socket.setEncoding("latin1")
  socket.on("data", (chunk: string) => {
    text += chunk
    changed()
  })
  socket.on("error", () => {})
  socket.on("close", () => {
    closed = true
    changed()
  })
  const when = (look: () => Effect.Effect<string> | undefined) =>
    Effect.callback<string>((resume) => {
      const listener = () => {
        const found = look()
        if (found === undefined) return
        listeners.delete(listener)
        resume(found)
      }
      listeners.add(listener)
      listener()
      return Effect.sync(() => listeners.delete(listener))
    })
  const connection: RawConnection = {
    write: (bytes) => Effect.sync(() => void socket.write(bytes)),
    shows: (pattern) =>
      when(() => {
        const matches = typeof pattern === "string" ? text.includes(pattern) : pattern.test(text)
        if (matches) return Effect.succeed(text)
        return closed ? Effect.die(new Error(`closed before ${pattern}: ${text}`)) : undefined
      }),
    ended: when(() => (closed ? Effect.succeed(text) : undefined))
  }
  return connection
})

/** Whether the port still takes connections. */
export const accepts = (port: number): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = Net.connect({ host: "127.0.0.1", port }, () => {
      socket.destroy()
      resume(Effect.succeed(true))
    })
    socket.once("error", () => resume(Effect.succeed(false)))
    return Effect.sync(() => socket.destroy())
  })

/** A request as it goes over the wire; an object as body is sent as JSON. */
export const request = (
  method: string,
  path: string,
  options: { readonly headers?: Readonly<Record<string, string>>; readonly body?: unknown } = {}
): string => {
  const body =
    options.body === undefined
      ? ""
      : typeof options.body === "string"
        ? options.body
        : JSON.stringify(options.body)
  const headers = { host: "gateway", "content-length": String(Buffer.byteLength(body)), ...options.headers }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body}`
}
