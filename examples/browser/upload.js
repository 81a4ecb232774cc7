// One upload at a time. The page has one of these states, and the state decides which elements are visible:
//
//   idle -> uploading <-> paused, waiting (for a retry) -> finished or failed
//   idle -> offer (this file has an unfinished upload) -> uploading
//
// Parameters in the page's address: ?endpoint=URL (where uploads are created) and ?chunkSize=BYTES (for proxies that
// limit the size of a request).

'use strict'

const BUTTONS = {
  idle: [],
  offer: ['continue', 'fresh', 'another'],
  uploading: ['pause', 'cancel'],
  waiting: ['retry', 'cancel'],
  paused: ['resume', 'cancel'],
  finished: ['link', 'another'],
  failed: ['retry', 'another'],
}

// Milliseconds. A server restart takes seconds, a gap in mobile coverage minutes. tus-js-client starts again with the
// first delay when the server has accepted more bytes.
const RETRY_DELAYS = [0, 500, 1000, 2000, 4000, 8000, ...Array(60).fill(15000)]
const STALLED_MS = 30000 // the browser does not notice a connection that died silently
const PACE_MS = 5000 // the speed shown is the mean over this time
const TEMPORARY = [408, 409, 423, 425, 429] // the only 4xx after which a retry can succeed
const GONE = [404, 410] // expired or removed: start a new upload

const element = (id) => document.getElementById(id)
const parameters = new URLSearchParams(location.search)
const storage = tus.defaultOptions.urlStorage

let state = 'idle'
let file = null
let upload = null
let previous = [] // unfinished uploads of the chosen file, the newest first
let samples = [] // [milliseconds, bytes sent], the oldest first
let movedAt = 0 // milliseconds; when the number of sent bytes last grew

// --- Display ---

function show(next, message) {
  const focused = document.activeElement // read before it is hidden: hiding an element removes its focus
  state = next
  document.body.dataset.state = next
  for (const button of document.querySelectorAll('.buttons > *')) button.hidden = !BUTTONS[next].includes(button.id)
  element('choose').hidden = next !== 'idle'
  element('upload').hidden = next === 'idle'
  element('endpoint').disabled = next !== 'idle'
  element('retry').textContent = next === 'failed' ? 'Try again' : 'Try now'
  element('status').textContent = message
  if (next !== 'uploading') element('pace').textContent = ''
  if (next === 'idle') listUnfinished()
  if (focused !== document.body && !focused.checkVisibility()) {
    document.querySelector('.buttons > :not([hidden]), #choose:not([hidden]) input')?.focus()
  }
}

function showProgress(sent, total) {
  const now = performance.now()
  if (samples.length && sent < samples.at(-1)[1]) samples = []
  if (!samples.length || sent > samples.at(-1)[1]) movedAt = now
  samples.push([now, sent])
  samples = samples.filter(([at]) => now - at <= PACE_MS)
  const [[since, before]] = samples
  const speed = (sent - before) / Math.max((now - since) / 1000, 0.001) // bytes per second

  const done = total ? sent / total : 1
  element('progress').value = done
  element('sent').textContent = `${Math.floor(done * 100)} % · ${bytes(sent)} of ${bytes(total)}`
  if (state === 'uploading' && now - since >= 500 && speed > 0) {
    element('pace').textContent = `${bytes(speed)}/s · ${duration((total - sent) / speed)} left`
  }
}

function resetProgress() {
  samples = []
  movedAt = performance.now()
  element('progress').value = 0
  element('sent').textContent = bytes(file.size)
}

function bytes(count) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), units.length - 1)
  return `${(count / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`
}

function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`
  const minutes = Math.ceil(seconds / 60)
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

function startedAt(entry) {
  return new Date(entry.creationTime).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' })
}

// --- Choosing a file, and unfinished uploads ---

async function choose(chosen) {
  if (!element('endpoint').reportValidity()) return
  file = chosen
  element('name').textContent = file.name
  resetProgress()
  upload = newUpload()
  previous = await upload.findPreviousUploads()
  previous.sort((a, b) => new Date(b.creationTime) - new Date(a.creationTime))
  if (!previous.length) return start()
  show('offer', `This file has an unfinished upload, started ${startedAt(previous[0])}.`)
}

// Lists unfinished uploads. After a reload the browser does not give the page its files again, so the user must choose.
async function listUnfinished() {
  const ofThisServer = (entry) => entry.urlStorageKey.includes(`-${element('endpoint').value}::`)
  const entries = (await storage.findAllUploads()).filter(ofThisServer)
  element('unfinished').replaceChildren(...entries.map(unfinishedItem))
}

function unfinishedItem(entry) {
  const item = document.createElement('li')
  const text = document.createElement('span')
  const name = document.createElement('strong')
  name.textContent = entry.metadata.filename
  text.append('Unfinished: ', name, ` (${bytes(entry.size)}, ${startedAt(entry)}). Choose the same file to continue.`)
  const discard = document.createElement('button')
  discard.textContent = 'Discard'
  discard.setAttribute('aria-label', `Discard the unfinished upload of ${entry.metadata.filename}`)
  discard.onclick = async () => {
    const removed = await remove(entry)
    show('idle', removed ? 'Discarded.' : 'The server did not confirm that it is discarded. Try again later.')
  }
  item.append(text, discard)
  return item
}

// Removes an unfinished upload on the server and in this browser; returns false if the server did not confirm it.
async function remove(entry) {
  try {
    await tus.Upload.terminate(entry.uploadUrl, { retryDelays: null })
  } catch (error) {
    if (!GONE.includes(statusOf(error))) return false
  }
  await storage.removeUpload(entry.urlStorageKey)
  return true
}

// --- Uploading ---

function newUpload() {
  const chunkSize = Number(parameters.get('chunkSize'))
  return new tus.Upload(file, {
    endpoint: element('endpoint').value,
    chunkSize: chunkSize > 0 ? chunkSize : Infinity, // by default one request for the whole file
    retryDelays: RETRY_DELAYS,
    removeFingerprintOnSuccess: true,
    metadata: { filename: file.name, filetype: file.type || 'application/octet-stream' },
    onProgress: showProgress,
    onAfterResponse: checkResponse,
    onShouldRetry: shouldRetry,
    onError: (error) => show('failed', reason(error)),
    onSuccess: finished,
  })
}

function start(message = 'Uploading.') {
  samples = []
  movedAt = performance.now()
  show('uploading', message)
  upload.start()
}

function pause() {
  upload.abort()
  show('paused', 'Paused. You can also close the page and continue later with the same file.')
}

// Aborts the request or the wait, and continues at the offset that the server returns.
function restart() {
  upload.abort()
  start('Trying again.')
}

async function cancel() {
  show('idle', 'Cancelled.')
  try {
    await upload.abort(true)
  } catch (error) {
    if (!GONE.includes(statusOf(error))) show('idle', 'Cancelled here, but the server did not confirm it.')
  }
  listUnfinished()
}

function finished() {
  showProgress(file.size, file.size)
  element('link').href = upload.url
  show('finished', `${file.name} is uploaded.`)
}

function checkResponse(request, response) {
  const status = response.getStatus()
  if (request.getMethod() === 'HEAD' && GONE.includes(status)) {
    resetProgress()
    show('uploading', 'The unfinished upload has expired on the server. Uploading from the start.')
  } else if (request.getMethod() === 'HEAD' && status >= 300 && status !== 423) {
    // Without this, tus-js-client would start a new upload, for example after a 502 from a proxy during a restart.
    throw Object.assign(new Error('the offset is not known'), { status })
  } else if (status < 300 && state === 'waiting') {
    show('uploading', 'The connection is back.')
  }
}

function shouldRetry(error, attempt) {
  const status = statusOf(error)
  const method = error.originalRequest.getMethod()
  // If the upload is gone, a PATCH is worth a retry: the HEAD before it gets a 404, and a new upload starts.
  const worthwhile = method !== 'DELETE' && (isTemporary(status) || (method === 'PATCH' && GONE.includes(status)))
  if (worthwhile) {
    const when = RETRY_DELAYS[attempt] < 1000 ? 'now' : `in ${RETRY_DELAYS[attempt] / 1000} seconds`
    show('waiting', `${trouble(status)} Trying again ${when}.`)
    if (!status) checkFile()
  }
  return worthwhile
}

// If a file changes or is removed during an upload, the browser reports the same error as for a broken connection.
async function checkFile() {
  try {
    await file.slice(0, 1).arrayBuffer()
  } catch {
    upload.abort()
    show('failed', 'The file has changed or is gone on this device. Choose it again to upload the current version.')
  }
}

function isTemporary(status) {
  return status < 400 || status >= 500 || TEMPORARY.includes(status)
}

// Returns the status of the response that caused the error, 0 if there was none.
function statusOf(error) {
  return error.originalResponse?.getStatus() ?? error.causingError?.status ?? 0
}

function trouble(status) {
  if (!status) return navigator.onLine ? 'The connection to the server is lost.' : 'This device is offline.'
  if (status === 409) return 'The server expects another part of the file.'
  if (status === 423) return 'The upload is in use, perhaps in another tab.'
  return `The server cannot accept the upload now (${status}).`
}

function reason(error) {
  const status = statusOf(error)
  if (!error.originalRequest) return `The upload cannot continue: ${error.message}.`
  if (isTemporary(status)) return `${trouble(status)} All retries failed.`
  const detail = detailOf(error.originalResponse)
  return `The server refused the upload (${status})${detail ? `: ${detail}` : ''}.`
}

// Returns the detail of the server's problem details (RFC 9457), '' for another response, for example from a proxy.
function detailOf(response) {
  try {
    return JSON.parse(response.getBody()).detail
  } catch {
    return ''
  }
}

// --- Wiring ---

element('endpoint').value = parameters.get('endpoint') || `http://${location.hostname || 'localhost'}:1080/files/`
document.querySelector('footer').hidden = parameters.has('endpoint')
element('endpoint').onchange = listUnfinished

element('file').onchange = (event) => {
  const [chosen] = event.target.files
  event.target.value = '' // without this, choosing the same file again triggers no event
  if (chosen) choose(chosen)
}

element('continue').onclick = () => {
  upload.resumeFromPreviousUpload(previous[0])
  start('Continuing where it stopped.')
}
element('fresh').onclick = () => {
  previous.forEach(remove)
  start()
}
element('pause').onclick = pause
element('resume').onclick = () => start('Continuing where it stopped.')
element('retry').onclick = restart
element('cancel').onclick = cancel
element('another').onclick = () => show('idle', '')

window.addEventListener('dragover', (event) => {
  event.preventDefault() // without this, the browser opens the file
  document.body.classList.add('dragging')
})
window.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dragging')
})
window.addEventListener('drop', (event) => {
  event.preventDefault()
  document.body.classList.remove('dragging')
  const [item] = event.dataTransfer.items
  if (state !== 'idle' || item?.kind !== 'file') return
  if (item.webkitGetAsEntry()?.isDirectory) show('idle', 'That is a folder. Choose one file.')
  else choose(item.getAsFile())
})

window.addEventListener('online', () => {
  if (state === 'waiting') restart()
})
setInterval(() => {
  if (state === 'uploading' && performance.now() - movedAt > STALLED_MS) restart()
}, 1000)

show('idle', '')
