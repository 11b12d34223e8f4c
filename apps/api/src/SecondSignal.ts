/**
 * Who asks a second time does not want to wait for the streams: the process ends at once.
 */

/** A terminal's Ctrl-C may come twice, once from the terminal and once from the package manager above us. */
const once = 500

const codes = { SIGINT: 130, SIGTERM: 143 } as const

/** Listens from now on; the first signal is somebody else's business. */
export const endsAtOnce = (): void => {
  let asked: number | undefined
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      const now = performance.now()
      asked ??= now
      if (now - asked > once) process.exit(codes[signal])
    })
  }
}
