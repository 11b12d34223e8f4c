/**
 * What can be uploaded, and how its bytes are read: piece by piece, and anew for each attempt.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

/**
 * The bytes of a file.
 *
 * A `Blob` may stand for a file on disk (`LocalFile.open`): it is read while it is sent.
 */
export type Content = Uint8Array | Blob | Streamed

/** Bytes that come from elsewhere. */
export interface Streamed {
  /** How many bytes; a stream that gives more or fewer fails the call with `InvalidRequest`. */
  readonly size: number
  /** Run again for each attempt. Its failure fails the call with `InvalidRequest`. */
  readonly stream: Stream.Stream<Uint8Array, unknown>
  /** It can be read only once: a call that has begun to read it is not retried. */
  readonly once?: boolean | undefined
}

/** How far a file has come: bytes that were handed to the connection. A retry begins anew. */
export interface Progress {
  readonly sent: number
  readonly total: number
}

const pieceSize = 256 * 1024

export const sizeOf = (content: Content): number =>
  content instanceof Uint8Array ? content.byteLength : content.size

export const isOnce = (content: Content): boolean => "once" in content && content.once === true

/** A source that could not be read, or not as it was announced. */
export class SourceFailed extends Data.TaggedError("SourceFailed")<{
  readonly message: string
  readonly cause?: unknown
}> {}

const piecesOf = (content: Content): Stream.Stream<Uint8Array, unknown> => {
  if ("stream" in content && !(content instanceof Blob)) return content.stream
  const total = sizeOf(content)
  return Stream.unfold(0, (at) => {
    if (at >= total) return Effect.succeed(undefined)
    const end = Math.min(at + pieceSize, total)
    return content instanceof Uint8Array
      ? Effect.succeed([content.subarray(at, end), end] as const)
      : Effect.map(
          Effect.tryPromise(() => content.slice(at, end).arrayBuffer()),
          (buffer) => [new Uint8Array(buffer), end] as const
        )
  })
}

/**
 * The bytes, counted. Fails where the source does, and where it has another size than it says: then before
 * its last byte is out.
 */
export const read = (
  content: Content,
  onProgress?: ((progress: Progress) => void) | undefined
): Stream.Stream<Uint8Array, SourceFailed> =>
  Stream.suspend(() => {
    const total = sizeOf(content)
    let sent = 0
    const short = Effect.suspend(() =>
      sent === total
        ? Effect.void
        : Effect.fail(new SourceFailed({ message: `it has ${sent} bytes in place of ${total}` }))
    )
    return piecesOf(content).pipe(
      Stream.catchCause((cause) =>
        Stream.fail(new SourceFailed({ message: "it could not be read", cause: Cause.squash(cause) }))
      ),
      Stream.mapEffect((piece) => {
        sent += piece.byteLength
        if (sent > total) return Effect.fail(new SourceFailed({ message: `it has more than ${total} bytes` }))
        onProgress?.({ sent, total })
        return Effect.succeed(piece)
      }),
      Stream.concat(Stream.fromEffectDrain(short))
    )
  })

/** A part of the content, without a copy; `undefined` where it can only be read from the front. */
export const slice = (content: Content, start: number, end: number): Content | undefined =>
  content instanceof Uint8Array
    ? content.subarray(start, end)
    : content instanceof Blob
      ? content.slice(start, end)
      : undefined
