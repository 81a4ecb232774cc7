// Uppy with its Dashboard, as its documentation puts it on a page.
//
// Query: endpoint, the creation URL; options, JSON with more options of the Tus plugin.

import '@uppy/core/css/style.min.css'
import '@uppy/dashboard/css/style.min.css'
import Uppy from '@uppy/core'
import Dashboard from '@uppy/dashboard'
import Tus from '@uppy/tus'

const query = new URLSearchParams(location.search)

new Uppy()
  .use(Dashboard, { target: '#uppy', inline: true, showLinkToFileUploadResult: true })
  .use(Tus, { endpoint: query.get('endpoint'), ...JSON.parse(query.get('options') ?? '{}') })
