/**
 * A WebSocket handshake with the provider. What comes of it is the connection itself: its frames are the
 * caller's business.
 *
 * Compression is not offered, so that frames can be passed on as they are.
 */
import { createHash, randomBytes } from "node:crypto"
import * as Http from "node:http"
import * as Https from "node:https"
import type { Socket } from "node:net"
import type { HeaderRecord } from "./transport.ts"
import type { Kind } from "./requestBuilder.ts"

/** The handshake is over, and nothing of the connection has been read. */
export interface Opened {
  readonly socket: Socket
  /** By lower-case name. */
  readonly headers: HeaderRecord
  /** The subprotocol that the server chose. */
  readonly protocol: string | undefined
}

/** An answer in place of the handshake. */
interface Refused {
  readonly status: number
  readonly headers: HeaderRecord
  /** The first 64 KiB. */
  readonly body: string
}

/** Called once, one of them. */
interface Outcome {
  readonly opened: (opened: Opened) => void
  readonly refused: (refused: Refused) => void
  readonly failed: (error: Error) => void
}

/** RFC 6455, section 1.3. */
const acceptOf = (key: string): string =>
  createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")

const bodyLimit = 64 * 1024

const errorOf = (code: string, message: string): Error => Object.assign(new Error(message), { code })

/**
 * Asks for an upgrade.
 *
 * @param connectTimeout milliseconds until the connection must stand; `Infinity` for none
 * @returns gives the handshake up; without effect once it is over
 */
export const open = (
  { origin, path }: Kind,
  headers: Readonly<Record<string, string>>,
  protocols: ReadonlyArray<string>,
  connectTimeout: number,
  { failed, opened, refused }: Outcome
): (() => void) => {
  const key = randomBytes(16).toString("base64")
  const secure = origin.startsWith("https:")
  const request = (secure ? Https : Http).request(`${origin}${path}`, {
    agent: false,
    headers: {
      ...headers,
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": key,
      ...(protocols.length === 0 ? {} : { "sec-websocket-protocol": protocols.join(", ") })
    }
  })
  request.on("socket", (socket) => {
    if (Number.isFinite(connectTimeout)) {
      const late = () => request.destroy(errorOf("ETIMEDOUT", "the connection was not there in time"))
      socket.setTimeout(connectTimeout, late)
      socket.once(secure ? "secureConnect" : "connect", () => {
        socket.setTimeout(0)
        socket.off("timeout", late)
      })
    }
  })
  request.on("upgrade", (response, socket, head) => {
    const { "sec-websocket-accept": accept, "sec-websocket-extensions": extensions } = response.headers
    const protocol = response.headers["sec-websocket-protocol"]
    if (
      accept !== acceptOf(key) ||
      extensions !== undefined ||
      (protocol !== undefined && !protocols.includes(protocol))
    ) {
      socket.destroy()
      return failed(errorOf("HPE_INVALID_UPGRADE", "not a WebSocket handshake"))
    }
    // Told by its end, also while nobody listens yet.
    socket.on("error", () => {})
    // Held until somebody reads.
    if (head.length > 0) socket.unshift(head)
    socket.setNoDelay(true)
    opened({ socket, headers: response.headers, protocol })
  })
  request.on("response", (response) => {
    const { headers: told, statusCode: status = 0 } = response
    const pieces: Array<Buffer> = []
    let size = 0
    const answer = () => {
      request.destroy()
      refused({ status, headers: told, body: Buffer.concat(pieces).subarray(0, bodyLimit).toString() })
    }
    response.on("data", (piece: Buffer) => {
      pieces.push(piece)
      size += piece.length
      if (size >= bodyLimit) answer()
    })
    response.once("end", answer)
    // The status says what happened, also where the body does not arrive.
    response.once("error", answer)
  })
  request.on("error", failed)
  request.end()
  return () => void request.destroy()
}
