/** A WebSocket client of the Realtime API that waits for events by their type. */
import * as Effect from "effect/Effect"

export interface Event {
  readonly type: string
  readonly [name: string]: unknown
}

export interface RealtimeClient {
  readonly protocol: string
  readonly send: (event: object | string) => void
  /** All events up to the first of a type, that one included; a defect when the connection is over before. */
  readonly until: (type: string) => Effect.Effect<ReadonlyArray<Event>>
  readonly close: () => void
  /** The code and the reason with which it ended. */
  readonly closed: Effect.Effect<readonly [code: number, reason: string]>
}

const isEvent = (json: unknown): json is Event =>
  typeof json === "object" && json !== null && "type" in json && typeof json.type === "string"

/** Connects; fails where the handshake does. */
export const make = (url: string, init: ConstructorParameters<typeof WebSocket>[1] = "realtime") =>
  Effect.acquireRelease(
    Effect.callback<RealtimeClient, string>((resume) => {
      const socket = new WebSocket(url, init)
      const events: Array<Event> = []
      const { promise: closed, resolve } = Promise.withResolvers<readonly [number, string]>()
      let over = false
      let look = () => {}
      socket.addEventListener("message", ({ data }) => {
        const event: unknown = JSON.parse(String(data))
        if (isEvent(event)) events.push(event)
        look()
      })
      socket.addEventListener("error", () => resume(Effect.fail("refused")))
      socket.addEventListener("close", ({ code, reason }) => {
        over = true
        resolve([code, reason])
        look()
      })
      const client: RealtimeClient = {
        get protocol() {
          return socket.protocol
        },
        send: (event) => socket.send(typeof event === "string" ? event : JSON.stringify(event)),
        until: (type) =>
          Effect.callback((told) => {
            look = () => {
              const at = events.findIndex((event) => event.type === type)
              if (at !== -1) told(Effect.succeed(events.splice(0, at + 1)))
              else if (over) told(Effect.die(new Error(`closed before ${type}`)))
            }
            look()
          }),
        close: () => socket.close(1000),
        closed: Effect.promise(() => closed)
      }
      socket.addEventListener("open", () => resume(Effect.succeed(client)))
    }),
    (client) => Effect.sync(client.close)
  )
