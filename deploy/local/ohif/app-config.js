/* How OHIF is set up inside Lightbox: one origin, the session cookie of the portal, its study list instead of OHIF's. */
(function () {
  'use strict';

  var REFRESH_MS = 4 * 60 * 1000;
  var RENEW_PAUSE_MS = 30 * 1000;
  var refreshed = Date.now();

  /* The access cookie lives ten minutes; the viewer may stay open for a whole day. */
  function refresh() {
    refreshed = Date.now();
    fetch('/auth/session/refresh', { method: 'POST', credentials: 'same-origin' })
      .then(function (answer) {
        if (answer.status === 401) {
          renew();
        }
      })
      .catch(function () {
        /* The line may be away for a moment; the next turn tries again. */
      });
  }

  /* Leads through identity back to this very page, or to the log-in when the session has ended. */
  function renew() {
    var last = Number(sessionStorage.getItem('lightbox-renewed')) || 0;
    if (Date.now() - last < RENEW_PAUSE_MS) {
      return;
    }
    sessionStorage.setItem('lightbox-renewed', String(Date.now()));
    var here = location.pathname + location.search;
    location.assign('/auth/renew?next=' + encodeURIComponent(here));
  }

  setInterval(refresh, REFRESH_MS);
  document.addEventListener('visibilitychange', function () {
    if (!document.hidden && Date.now() - refreshed > REFRESH_MS) {
      refresh();
    }
  });

  /* A series opens at its middle, where there is something to see: the ends of a volume are often empty. */
  var opensInTheMiddle = {
    id: 'lightbox.opens-in-the-middle',
    preRegistration: function (parts) {
      var protocols = parts.servicesManager.services.hangingProtocolService;
      var waiting = setInterval(function () {
        var protocol = protocols.getProtocolById('default');
        if (!protocol) {
          return;
        }
        clearInterval(waiting);
        protocol.stages.forEach(function (stage) {
          stage.viewports.concat(protocol.defaultViewport || []).forEach(function (viewport) {
            viewport.viewportOptions.initialImageOptions = { preset: 'middle' };
          });
        });
      }, 20);
    },
  };

  window.config = {
    name: 'lightbox',
    routerBasename: '/ohif',
    showStudyList: false,
    extensions: [opensInTheMiddle],
    modes: [],
    customizationService: { global: { 'ohif.tours': { $set: [] } } },
    investigationalUseDialog: { option: 'never' },
    whiteLabeling: {
      createLogoComponentFn: function (React) {
        return React.createElement(
          'a',
          {
            href: '/',
            className: 'text-primary whitespace-nowrap px-2 text-base',
            'aria-label': 'Lightbox: back to the studies',
          },
          '← Studies'
        );
      },
    },
    maxNumberOfWebWorkers: 3,
    showWarningMessageForCrossOrigin: true,
    showCPUFallbackMessage: true,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    groupEnabledModesFirst: true,
    showErrorDetails: 'always',
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 25 },
    defaultDataSourceName: 'lightbox',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'lightbox',
        configuration: {
          friendlyName: 'Lightbox',
          name: 'lightbox',
          qidoRoot: '/dicom-web',
          wadoRoot: '/dicom-web',
          wadoUriRoot: '/dicom-web/wado',
          qidoSupportsIncludeField: true,
          supportsFuzzyMatching: true,
          supportsWildcard: true,
          imageRendering: 'wadors',
          thumbnailRendering: 'rendered',
          thumbnailRequestStrategy: 'fetch',
          enableStudyLazyLoad: true,
          dicomUploadEnabled: false,
          omitQuotationForMultipartRequest: true,
          bulkDataURI: { enabled: true, relativeResolution: 'studies' },
        },
      },
    ],
    httpErrorHandler: function (error) {
      if (error && error.status === 401) {
        renew();
      }
    },
  };
})();
