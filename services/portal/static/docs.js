// Shows the OpenAPI document of the chosen service; the choice is the address's fragment.
"use strict";

(() => {
  const choice = document.getElementById("service");

  function show() {
    const service = choice.value;
    window.SwaggerUIBundle({
      url: `/api/openapi/${service}.json`,
      dom_id: "#swagger",
      deepLinking: false,
      defaultModelsExpandDepth: 0,
      validatorUrl: null,
      tryItOutEnabled: false,
    });
    history.replaceState(null, "", `#${service}`);
  }

  const wanted = location.hash.slice(1);
  if ([...choice.options].some((option) => option.value === wanted)) choice.value = wanted;
  choice.addEventListener("change", show);
  show();
})();
