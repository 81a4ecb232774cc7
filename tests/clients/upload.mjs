// Uploads one file with tus-js-client and prints one JSON line for each event.
//
//   node upload.mjs [options] ENDPOINT FILE
//     --store PATH             remember the upload's URL here: a second start resumes
//     --chunk-size BYTES       one PATCH for so many bytes; default: one for all
//     --rate BYTES             send no more than this in a second
//     --data-during-creation   the first bytes go with the POST
//
// Events: request {method, offset}, response {method, status}, url {url}, progress {sent, length}, retry {status},
// success {url}, error {status, message}. A status of 0 says that no answer came.
// Exit status: 0 uploaded, 1 given up.

import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import tus from 'tus-js-client'

const RETRY_DELAYS = [0, 250, 500, ...Array(30).fill(1000)] // milliseconds; a server restart takes seconds

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    store: { type: 'string' },
    'chunk-size': { type: 'string' },
    rate: { type: 'string' },
    'data-during-creation': { type: 'boolean', default: false },
  },
})
const [endpoint, path] = positionals

function tell(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
}

// tus-js-client's fileReader option: the file in slices that flow no faster than the rate.
const slowReader = {
  async openFile(file) {
    const { size } = await stat(file.path)
    return {
      size,
      async slice(start, end) {
        const value = Readable.from(slowly(createReadStream(path, { start, end: end - 1 })), { objectMode: false })
        value.size = end - start
        return { value, done: end >= size }
      },
      close() {},
    }
  },
}

async function* slowly(stream) {
  const startedAt = performance.now()
  let sent = 0
  for await (const piece of stream) {
    yield piece
    sent += piece.length
    const ahead = (sent / Number(values.rate)) * 1000 - (performance.now() - startedAt) // milliseconds
    if (ahead > 0) await sleep(ahead)
  }
}

const options = {
  endpoint,
  metadata: { filename: basename(path) },
  retryDelays: RETRY_DELAYS,
  removeFingerprintOnSuccess: true,
  uploadDataDuringCreation: values['data-during-creation'],
  chunkSize: values['chunk-size'] ? Number(values['chunk-size']) : Number.POSITIVE_INFINITY,
  onProgress: (sent, length) => tell('progress', { sent, length }),
  onUploadUrlAvailable: () => tell('url', { url: upload.url }),
  onBeforeRequest: (request) =>
    tell('request', { method: request.getMethod(), offset: Number(request.getHeader('Upload-Offset') ?? 0) }),
  onAfterResponse: (request, response) =>
    tell('response', { method: request.getMethod(), status: response.getStatus() }),
  onShouldRetry: (error) => {
    const status = statusOf(error)
    const worthwhile = status < 400 || status >= 500 || status === 409 || status === 423
    if (worthwhile) tell('retry', { status })
    return worthwhile
  },
  onSuccess: () => tell('success', { url: upload.url }),
  onError: (error) => {
    tell('error', { status: statusOf(error), message: error.message })
    process.exitCode = 1
  },
}
if (values.store) options.urlStorage = new tus.FileUrlStorage(values.store)
if (values.rate) options.fileReader = slowReader

function statusOf(error) {
  return error.originalResponse?.getStatus() ?? 0
}

const upload = new tus.Upload(createReadStream(path), options)
const [previous] = await upload.findPreviousUploads()
if (previous) upload.resumeFromPreviousUpload(previous)
upload.start()
